"""What are the networks made of? One module per architecture, torch only, the same for training and clinical use."""
