"""A TPM 2.0: what it says, read strictly; a secret only it can open, made without one; and how to ask one.

Names of structures are those of the TCG's "TPM 2.0 Library", parts 1 and 2. Only `device` needs `sojourn[tpm]`.
"""
