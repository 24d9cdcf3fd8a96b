"""What users write and read: the two kinds, their status, and the CRDs made from them."""
