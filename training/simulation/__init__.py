"""Simulated SWI with exact truth: anatomy, susceptibility, field, veins, signal, lesions, scanner and files."""
