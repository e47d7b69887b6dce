// PF_KEY by Go's own system calls, without a C library: sockets in several goroutines, each answered before Write returns.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
)

func exchange(s int, seq uint32) error {
	var m [16]byte
	m[0], m[1] = 2, 9 // PF_KEY_V2, SADB_FLUSH
	binary.LittleEndian.PutUint16(m[4:], 2)
	binary.LittleEndian.PutUint32(m[8:], seq)
	if n, err := syscall.Write(s, m[:]); n != 16 || err != nil {
		return fmt.Errorf("write: %d, %v", n, err)
	}
	var answer [512]byte
	n, _, err := syscall.Recvfrom(s, answer[:], syscall.MSG_DONTWAIT)
	if n != 16 || err != nil || binary.LittleEndian.Uint32(answer[8:]) != seq {
		return fmt.Errorf("recvfrom: %d, %v", n, err)
	}
	return nil
}

func exchanges(done chan<- error) {
	s, err := syscall.Socket(15, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 2)
	for seq := uint32(1); err == nil && seq <= 200; seq++ {
		err = exchange(s, seq)
	}
	done <- err
}

func main() {
	done := make(chan error)
	for i := 0; i < 4; i++ {
		go exchanges(done)
	}
	for i := 0; i < 4; i++ {
		if err := <-done; err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	if _, err := syscall.Socket(15, syscall.SOCK_DGRAM, 2); err != syscall.ESOCKTNOSUPPORT {
		fmt.Println("datagram:", err)
		os.Exit(1)
	}
	fmt.Println("as on AF_KEY")
}
