"""Three clouds and a store on one machine: real processes, a real SFTP server, links that are slow on purpose."""
