//! TLS for both sides.
