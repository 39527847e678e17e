"""What the user names becomes files: found, with a format, unpacked, and fingerprinted."""
