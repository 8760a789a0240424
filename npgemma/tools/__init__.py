"""What is done with traces and models: comparing, measuring."""
