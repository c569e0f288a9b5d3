"""The claims ledger: every quantitative claim of the paper with its status, from records."""
