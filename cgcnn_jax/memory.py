"""Whether an error is for want of memory."""


def is_lacking(error: BaseException) -> bool:
    """Whether Python had no memory, or XLA none on its device."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
