"""What comes after pretraining: fine-tuning an encoder for a label, the model that is left, low-rank tuning."""
