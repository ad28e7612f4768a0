"""Tests of the migration operations, mirroring ``django_walsignals.operations``."""
