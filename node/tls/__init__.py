"""TLS: how connections are secured, and when certificates expire."""
