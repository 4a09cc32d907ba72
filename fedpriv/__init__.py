"""Federated LoRA fine-tuning on clinical notes that stay in the building."""

__version__ = "0.1.0"
