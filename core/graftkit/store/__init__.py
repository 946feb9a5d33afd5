"""What lies on the disk: atomic files, headers of tensors, tokens, manifests."""
