"""What a model is worth: validation loss on held-out tokens, and lm-eval's tasks in suites."""

from inheritune_lit.evaluate.loss import ValidationLoss, all_windows, validation_loss, validation_windows, window_losses

__all__ = ["ValidationLoss", "all_windows", "validation_loss", "validation_windows", "window_losses"]
