"""What a collection holds, looked at and mended: verify, repair, query, and the list of collections."""
