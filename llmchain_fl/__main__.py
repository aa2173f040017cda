"""``python -m llmchain_fl`` is ``llmchain-fl``."""

from llmchain_fl.cli.main import main

if __name__ == "__main__":
    main()
