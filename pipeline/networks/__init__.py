"""What are the networks made of? One module an architecture: torch only, the same for training and for the clinic."""
