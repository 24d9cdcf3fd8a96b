"""The built-in providers, one file each; others come by the entry-point group `regcred.providers`."""
