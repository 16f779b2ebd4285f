"""The methods: generators of tickets, one module for each family; ``pruning.catalogue`` lists them by name."""
