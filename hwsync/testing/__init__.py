"""What ships for tests of labs: a checker of the promises."""
