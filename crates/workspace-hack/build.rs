//! Nothing to do: this script is here for the features of its dependencies.

// Without a build script cargo would not look at the build dependencies.
fn main() {}
