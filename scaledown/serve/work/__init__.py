"""The side of the service that computes: jobs, their batches, the answers of the model or of a vLLM server."""
