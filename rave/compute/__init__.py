"""Where does the arithmetic run, in how many processes, with which precision?"""
