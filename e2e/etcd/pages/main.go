// pages copies a bbolt file into a new one with pages of another size, by the real bbolt: an etcd
// on a machine with larger memory pages has such files.
//
//	bbolt-pages FROM TO PAGE-BYTES
package main

import (
	"fmt"
	"os"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: bbolt-pages FROM TO PAGE-BYTES")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(from, to, pageBytes string) error {
	size, err := strconv.Atoi(pageBytes)
	if err != nil {
		return err
	}
	source, err := bolt.Open(from, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := bolt.Open(to, 0o600, &bolt.Options{PageSize: size})
	if err != nil {
		return err
	}
	if err := bolt.Compact(target, source, 1<<20); err != nil {
		return err
	}
	return target.Close()
}
