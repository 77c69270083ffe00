"""How are the networks of a profile trained? Stage by stage: detector, its false positives, classifier, calibration."""
