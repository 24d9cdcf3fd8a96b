"""The built-in providers, one package or file each; others come by the entry-point group `regcred.providers`."""
