package postgres

import "syscall"

// procAttr runs a child as the account, in a process group of its own (so that a Ctrl-C reaches us first), and has the
// kernel stop it in order when we die.
func (a account) procAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	if a.other {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)} //nolint:gosec // ids from the system's own table
	}
	return attr
}
