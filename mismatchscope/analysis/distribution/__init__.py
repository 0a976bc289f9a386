"""Are the two columns of a log log-probs of the same tokens under the distribution that they were drawn from?

One file a check, or a family of them; `checks` has them all.
"""
