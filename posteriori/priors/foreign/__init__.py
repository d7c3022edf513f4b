"""What other people's files hold, recognised by the names and shapes of their tensors."""
