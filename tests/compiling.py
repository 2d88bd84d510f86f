"""How programs are compiled in tests of what stands around them."""

# For a process of its own what the fixture quick_compiling is for pytest's: networks this small compile for longer than
# they compute, and the numbers are tested elsewhere.
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
