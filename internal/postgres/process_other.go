//go:build !linux

package postgres

import "syscall"

// procAttr runs a child as the account, in a process group of its own, so that a Ctrl-C reaches us first.
func (a account) procAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a.other {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}
