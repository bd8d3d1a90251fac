"""The MONAI border: dictionaries and tensors live between here and the network, nowhere else."""
