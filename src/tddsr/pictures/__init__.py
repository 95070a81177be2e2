"""Pictures: files, arrays, tensors, folders."""
