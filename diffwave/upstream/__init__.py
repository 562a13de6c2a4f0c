"""How do files of lmnt diffwave open here?"""
