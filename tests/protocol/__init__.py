"""The wire, without a server: bytes in, frozen types out."""
