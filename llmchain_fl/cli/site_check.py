"""``llmchain-fl site check``"""
def command() -> None:
    """x"""
