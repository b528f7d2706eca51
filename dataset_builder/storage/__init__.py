"""Where things are kept: folders of any file system, and sets of hashes in little memory."""
