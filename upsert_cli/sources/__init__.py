"""Sources: the files, streams and addresses that the user names, read item by item from any position on."""
