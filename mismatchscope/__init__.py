"""mismatchscope: is the policy that samples still the policy that trains?"""

__version__ = "0.1.0"
