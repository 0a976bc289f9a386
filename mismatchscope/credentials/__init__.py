"""What must not leak: keys, passwords and tokens are recognised here, and masked before anything is written."""

from .kept_keys import keep_key
from .masking import MASK, find_credential, masked

__all__ = ["MASK", "find_credential", "keep_key", "masked"]
