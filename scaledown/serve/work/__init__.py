"""What is computed: jobs, their batches, and the answers of the model or of a vLLM server."""
