"""Methods that fit a distribution to the posterior by gradient steps."""
