"""What is fetched from the network: which files, under which licences, and how."""
