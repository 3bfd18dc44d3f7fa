"""Search: an Optuna study over heads, trained side by side."""
