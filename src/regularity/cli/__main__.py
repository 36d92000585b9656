from regularity.cli import main

main()
