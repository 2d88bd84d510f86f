"""The field's benchmark protocols: what is trained on, judged on and recorded so that errors can be compared."""
