"""The workbook as web pages: executed chapters whose explorables answer without a kernel, a server or a network."""
