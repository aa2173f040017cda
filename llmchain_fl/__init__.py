"""llmchain_fl: federated, private and continual LoRA fine-tuning of language models, on Flower."""

__version__ = "0.2.0"
