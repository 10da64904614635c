"""Running the network: weights, training, detection."""
