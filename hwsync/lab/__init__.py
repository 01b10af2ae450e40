"""A lab that lets in only whom it knows: its accounts, its certificates, and the files of both."""
